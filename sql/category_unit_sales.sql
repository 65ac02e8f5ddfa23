SELECT
    CAST(date_trunc('month', o.order_purchase_timestamp) AS date) AS month,
    coalesce(t.product_category_name_english, p.product_category_name, 'unknown') AS category,
    count(*) AS units,
    coalesce(sum(i.price), 0) AS revenue
FROM items AS i
JOIN orders AS o ON o.order_id = i.order_id
LEFT JOIN products AS p ON p.product_id = i.product_id
LEFT JOIN product_categories AS t ON t.product_category_name = p.product_category_name
WHERE o.order_status NOT IN ('canceled', 'unavailable')
GROUP BY
    CAST(date_trunc('month', o.order_purchase_timestamp) AS date),
    coalesce(t.product_category_name_english, p.product_category_name, 'unknown')
