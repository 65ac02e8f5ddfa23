-- Item-to-item collaborative filtering: G. Linden, B. Smith, J. York, "Amazon.com recommendations: item-to-item collaborative
-- filtering", IEEE Internet Computing 7 (2003), over the shop's sessions instead of customers, since most visitors come once.
-- A session s shows an interest w(s, i) in product i: 4 if it bought it, else 3 if it left it in the cart, else 2 if it looked
-- at it or took it out of the cart again. Two products are as similar as the cosine of their columns of w,
--     sum over s of w(s, i) w(s, j) / sqrt(sum of w(s, i)^2 * sum of w(s, j)^2)
-- shrunk by the number n of sessions that have both, n / (n + recommendation_shrinkage), so that two products that met once
-- don't rank before two that meet often (R. Bell, Y. Koren, "Improved neighborhood-based collaborative filtering", KDD Cup
-- 2007). Sessions of more than recommendation_session_products are left out: they are programs, and pairs grow as the square.
--
-- Sums are of whole numbers, and a score has six decimals, by which products are ranked: equal ones by id.
WITH interests AS (
    SELECT
        user_session,
        product_id,
        CASE
            WHEN count(*) FILTER (WHERE event_type = 'purchase') > 0 THEN 4
            WHEN
                count(*) FILTER (WHERE event_type = 'cart') > count(*) FILTER (WHERE event_type = 'remove_from_cart')
                THEN 3
            ELSE 2
        END AS interest
    FROM events
    WHERE user_session IS NOT NULL
    GROUP BY user_session, product_id
),

sizes AS (
    SELECT user_session, count(*) AS products
    FROM interests
    GROUP BY user_session
),

kept AS (
    SELECT i.user_session, i.product_id, i.interest
    FROM interests AS i
    JOIN sizes AS s ON s.user_session = i.user_session
    WHERE s.products <= $recommendation_session_products
),

norms AS (
    SELECT product_id, sum(interest * interest) AS norm
    FROM kept
    GROUP BY product_id
),

pairs AS (
    SELECT a.product_id, b.product_id AS recommended_id, count(*) AS sessions, sum(a.interest * b.interest) AS product
    FROM kept AS a
    JOIN kept AS b ON b.user_session = a.user_session
    WHERE a.product_id <> b.product_id
    GROUP BY a.product_id, b.product_id
),

scored AS (
    SELECT
        p.product_id,
        p.recommended_id,
        CAST(
            CAST(p.product AS double) / sqrt(CAST(a.norm AS double) * CAST(b.norm AS double))
            * CAST(p.sessions AS double) / (CAST(p.sessions AS double) + $recommendation_shrinkage)
            AS decimal(7, 6)
        ) AS score
    FROM pairs AS p
    JOIN norms AS a ON a.product_id = p.product_id
    JOIN norms AS b ON b.product_id = p.recommended_id
),

ranked AS (
    SELECT
        product_id,
        row_number() OVER (PARTITION BY product_id ORDER BY score DESC, recommended_id) AS rank,
        recommended_id,
        score
    FROM scored
)

SELECT product_id, CAST(rank AS bigint) AS rank, recommended_id, score
FROM ranked
WHERE rank <= 10
