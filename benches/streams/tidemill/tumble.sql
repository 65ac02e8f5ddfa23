SELECT window_start, product_id, count(*) AS units, sum(price) AS revenue, max(event_time) AS latest
FROM events
WHERE event_type = 'purchase'
GROUP BY tumble(event_time, INTERVAL '1 minute'), product_id
