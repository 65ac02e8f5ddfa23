SELECT count(*) AS groups, sum(units) AS units, sum(revenue) AS revenue
FROM (
    SELECT
        window_start,
        product_id,
        CAST(window_start AS date) AS sales_date,
        count(*) AS units,
        coalesce(sum(price), 0) AS revenue
    FROM events
    WHERE event_type = 'purchase'
    GROUP BY tumble(event_time, INTERVAL '1 minute'), product_id
)
