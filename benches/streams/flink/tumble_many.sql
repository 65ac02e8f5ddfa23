SELECT window_start, user_session, count(*) AS events, sum(price) AS worth
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, user_session
