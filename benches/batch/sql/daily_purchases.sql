SELECT
    CAST(event_time AS date) AS day,
    count(*) AS units,
    coalesce(sum(price), 0) AS revenue
FROM events
WHERE event_type = 'purchase'
GROUP BY CAST(event_time AS date)
