-- A review is of an order, so of each product in it, once however many units there were.
WITH ordered AS (
    SELECT order_id, product_id
    FROM items
    GROUP BY order_id, product_id
)

SELECT o.product_id, count(*) AS reviews, avg(r.review_score) AS mean_score
FROM reviews AS r
JOIN ordered AS o ON o.order_id = r.order_id
GROUP BY o.product_id
