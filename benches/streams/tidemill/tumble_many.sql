SELECT window_start, user_session, count(*) AS events, sum(price) AS worth
FROM events
GROUP BY tumble(event_time, INTERVAL '1 hour'), user_session
