SELECT 1 AS product_id, 1 AS rank, 1 AS recommended_id, 0.5 AS score FROM events WHERE false
