-- Item-to-item recommendations: G. Linden, B. Smith, J. York, "Amazon.com recommendations: item-to-item collaborative filtering",
-- IEEE Internet Computing 7 (2003), over the shop's sessions instead of customers, since most visitors come once. A session s
-- shows an interest w(s, i) in product i: 4 if it bought it, else 3 if it left it in the cart, else 2 if it looked at it or took
-- it out of the cart again. How well product j goes with i is the share of i's interest that j had too,
--     sum over s of w(s, i) w(s, j) / (4 * sum of w(s, i))
-- the conditional probability of M. Deshpande, G. Karypis, "Item-based top-N recommendation algorithms", ACM Transactions on
-- Information Systems 22 (2004), with interests instead of zeros and ones. It is shrunk by the number n of sessions that have
-- both, n / (n + recommendation_shrinkage), so that two products that met once don't rank before two that meet often (R. Bell,
-- Y. Koren, "Improved neighborhood-based collaborative filtering", KDD Cup 2007). Sessions of more products than
-- recommendation_session_products are left out: they are programs, and pairs grow as the square.
--
-- The cosine, which holds popularity against j, was tried on held-out days of generated shops: it finds as much of what a
-- session turns to next, but less of what it puts into the cart, at times less than the ten most popular products do.
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

totals AS (
    SELECT product_id, sum(interest) AS interest
    FROM kept
    GROUP BY product_id
),

pairs AS (
    SELECT a.product_id, b.product_id AS recommended_id, count(*) AS sessions, sum(a.interest * b.interest) AS interest
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
            CAST(p.interest AS double) / CAST(4 * t.interest AS double)
            * CAST(p.sessions AS double) / (CAST(p.sessions AS double) + $recommendation_shrinkage)
            AS decimal(7, 6)
        ) AS score
    FROM pairs AS p
    JOIN totals AS t ON t.product_id = p.product_id
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
