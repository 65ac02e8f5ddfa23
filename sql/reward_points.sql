-- Points come eleven days after delivery, when an order can't be sent back any more. Times of orders are the shop's wall clock,
-- so the clock is read in the shop's zone. Where a summer ends, an hour comes twice: the first one counts, as everywhere, and
-- points given in it aren't taken back for the second. That is what the hour reached an hour ago is for, which on any other day
-- is past anyway.
WITH delivered AS (
    SELECT order_id, customer_id, order_delivered_customer_date + INTERVAL '11 days' AS awarded_at
    FROM orders
    WHERE order_status = 'delivered' AND order_delivered_customer_date IS NOT NULL
),

spent AS (
    SELECT order_id, sum(price) AS revenue
    FROM items
    GROUP BY order_id
)

SELECT
    d.order_id,
    c.customer_unique_id,
    CAST(floor(coalesce(s.revenue, 0)) AS bigint) AS points,
    d.awarded_at
FROM delivered AS d
LEFT JOIN customers AS c ON c.customer_id = d.customer_id
LEFT JOIN spent AS s ON s.order_id = d.order_id
WHERE
    d.awarded_at <= to_local_time(now())
    OR d.awarded_at <= date_trunc('hour', to_local_time(now() - INTERVAL '1 hour')) + INTERVAL '1 hour'
