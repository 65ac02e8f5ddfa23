-- A session is one user's events with less than 30 minutes between neighbours, whatever user_session says: the shop's own goes
-- on over a phone call. It ends at its last event, not at the end of the gap after it.
SELECT
    user_id,
    window_start AS session_start,
    max(event_time) AS session_end,
    count(*) AS events,
    count(DISTINCT product_id) AS products,
    coalesce(sum(price) FILTER (WHERE event_type = 'purchase'), 0) AS revenue
FROM events
GROUP BY user_id, session(event_time, INTERVAL '30 minutes')
