SELECT category, rank, product_id, revenue
FROM (
    SELECT category, product_id, revenue, row_number() OVER (PARTITION BY category ORDER BY revenue DESC, product_id) AS rank
    FROM (
        SELECT coalesce(category_code, '') AS category, product_id, sum(price) AS revenue
        FROM events
        WHERE event_type = 'purchase'
        GROUP BY coalesce(category_code, ''), product_id
    ) AS sales
) AS ranked
WHERE rank <= 10
