SELECT window_start, product_id, count(*) AS units, sum(price) AS revenue, max(event_time) AS latest
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
WHERE event_type = 'purchase'
GROUP BY window_start, window_end, product_id
