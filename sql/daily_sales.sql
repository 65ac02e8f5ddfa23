-- Items hang on orders by a left join: an order without items still was an order of that day.
SELECT
    CAST(o.order_purchase_timestamp AS date) AS day,
    count(DISTINCT o.order_id) AS orders,
    count(i.order_id) AS units,
    coalesce(sum(i.price), 0) AS revenue,
    coalesce(sum(i.freight_value), 0) AS freight
FROM orders AS o
LEFT JOIN items AS i ON i.order_id = o.order_id
WHERE o.order_status NOT IN ('canceled', 'unavailable')
GROUP BY CAST(o.order_purchase_timestamp AS date)
