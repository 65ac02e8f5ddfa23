-- Flink's sessions go on over a gap of exactly the given one, Tidemill's end there; events have milliseconds.
SELECT user_id, window_start AS session_start, max(event_time) AS session_end, count(*) AS events, sum(price) AS worth
FROM TABLE(SESSION(TABLE events PARTITION BY user_id, DESCRIPTOR(event_time), INTERVAL '1799.999' SECOND(4, 3)))
GROUP BY user_id, window_start, window_end
