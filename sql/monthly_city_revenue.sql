-- One customer row an order, so that the first join adds no rows; the second adds one a unit, and orders are distinct.
SELECT
    CAST(date_trunc('month', o.order_purchase_timestamp) AS date) AS month,
    coalesce(c.customer_state, 'unknown') AS state,
    coalesce(c.customer_city, 'unknown') AS city,
    count(DISTINCT o.order_id) AS orders,
    coalesce(sum(i.price), 0) AS revenue
FROM orders AS o
LEFT JOIN customers AS c ON c.customer_id = o.customer_id
LEFT JOIN items AS i ON i.order_id = o.order_id
WHERE o.order_status NOT IN ('canceled', 'unavailable')
GROUP BY
    CAST(date_trunc('month', o.order_purchase_timestamp) AS date),
    coalesce(c.customer_state, 'unknown'),
    coalesce(c.customer_city, 'unknown')
