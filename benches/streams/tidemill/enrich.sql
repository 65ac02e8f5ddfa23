SELECT
    e.event_time, e.event_type, e.product_id, e.price, e.user_id,
    coalesce(p.product_category_name, '') AS category, coalesce(p.product_weight_g, 0) AS weight
FROM events AS e
JOIN products AS p ON p.number = e.product_id
