SELECT user_id, window_start AS session_start, max(event_time) AS session_end, count(*) AS events, sum(price) AS worth
FROM events
GROUP BY user_id, session(event_time, INTERVAL '30 minutes')
