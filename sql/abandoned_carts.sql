-- Units left are those put in less those taken out, of each product by itself: what was taken out without having been put in
-- (an older session's) doesn't offset another product. Counts, not the order of events, decide: two of one second have none.
-- A unit left is worth the highest price at which the session put the product in.
WITH carts AS (
    SELECT
        user_session,
        product_id,
        count(*) FILTER (WHERE event_type = 'cart') - count(*) FILTER (WHERE event_type = 'remove_from_cart') AS units,
        coalesce(max(price) FILTER (WHERE event_type = 'cart'), 0) AS price
    FROM events
    WHERE user_session IS NOT NULL AND event_type IN ('cart', 'remove_from_cart')
    GROUP BY user_session, product_id
),

kept AS (
    SELECT user_session, count(*) AS products, sum(units * price) AS amount
    FROM carts
    WHERE units > 0
    GROUP BY user_session
),

visits AS (
    SELECT
        user_session,
        min(user_id) AS user_id,
        max(event_time) AS last_event,
        count(*) FILTER (WHERE event_type = 'purchase') AS purchases
    FROM events
    WHERE user_session IS NOT NULL
    GROUP BY user_session
)

SELECT v.user_session, v.user_id, v.last_event, k.products, CAST(k.amount AS decimal(18, 2)) AS amount
FROM kept AS k
JOIN visits AS v ON v.user_session = k.user_session
WHERE v.purchases = 0
