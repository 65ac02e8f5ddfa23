-- Association rules of two products (R. Agrawal, T. Imielinski, A. Swami, "Mining association rules between sets of items in
-- large databases", SIGMOD 1993), over orders that count as sales and have items:
--   support        share of orders that have both
--   confidence_ab  share of orders with a that have b too; confidence_ba the other way round
--   lift           support over what it would be if a and b knew nothing of each other: 1 is chance
-- Each is one division of whole numbers, so the nearest double there is.
WITH baskets AS (
    SELECT i.order_id, i.product_id
    FROM items AS i
    JOIN orders AS o ON o.order_id = i.order_id
    WHERE o.order_status NOT IN ('canceled', 'unavailable')
    GROUP BY i.order_id, i.product_id
),

sold AS (
    SELECT product_id, count(*) AS orders
    FROM baskets
    GROUP BY product_id
),

-- One row, joined by a constant: an equi-join can be maintained where a scalar subquery would be run anew.
total AS (
    SELECT 1 AS one, count(*) AS orders
    FROM (SELECT order_id FROM baskets GROUP BY order_id)
),

pairs AS (
    SELECT a.product_id AS product_a, b.product_id AS product_b, count(*) AS orders, 1 AS one
    FROM baskets AS a
    JOIN baskets AS b ON b.order_id = a.order_id
    WHERE a.product_id < b.product_id
    GROUP BY a.product_id, b.product_id
)

SELECT
    p.product_a,
    p.product_b,
    p.orders,
    CAST(p.orders AS double) / CAST(t.orders AS double) AS support,
    CAST(p.orders AS double) / CAST(a.orders AS double) AS confidence_ab,
    CAST(p.orders AS double) / CAST(b.orders AS double) AS confidence_ba,
    CAST(p.orders * t.orders AS double) / CAST(a.orders * b.orders AS double) AS lift
FROM pairs AS p
JOIN sold AS a ON a.product_id = p.product_a
JOIN sold AS b ON b.product_id = p.product_b
JOIN total AS t ON t.one = p.one
