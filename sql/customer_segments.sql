-- Recency, frequency and monetary value, each scored from 1 to 5 (A. M. Hughes, "Strategic Database Marketing", 1994), and the
-- segment that the scores make. Scores go by fixed cuts, the rfm_* parameters of tidemill.yaml, rather than by quantiles: a
-- customer's row then hangs on that customer and on the latest day of purchase, never on where all others stand.
--
-- The first that fits, so that each customer has one segment:
--   champions        bought lately, often, and spent much                     recency 4+, frequency 4+, monetary 4+
--   loyal            come back, and did within the third cut                  recency 3+, frequency 3+
--   new              one order, within the first cut                          recency 5,  frequency 1
--   promising        bought lately, not often yet                             recency 4+
--   needs_attention  on the way out, with an order or two                     recency 3
--   cannot_lose      silent for long, was among the best                      frequency 4+ or monetary 5
--   at_risk          silent for long, had come back before                    frequency 2+
--   hibernating      one order, silent for long                               recency 2
--   lost             one order, silent beyond the last cut                    recency 1
--
-- An order without items counts as one of 0.00, as in daily_sales. Time stands at the latest day of purchase of any order, also of
-- one that was canceled, as in customer_lifetime_value: the same rows give the same table on any day.
WITH spent AS (
    SELECT order_id, sum(price) AS revenue
    FROM items
    GROUP BY order_id
),

purchases AS (
    SELECT
        c.customer_unique_id,
        count(*) AS orders,
        coalesce(sum(s.revenue), 0) AS revenue,
        CAST(max(o.order_purchase_timestamp) AS date) AS last_order,
        1 AS one
    FROM orders AS o
    JOIN customers AS c ON c.customer_id = o.customer_id
    LEFT JOIN spent AS s ON s.order_id = o.order_id
    WHERE o.order_status NOT IN ('canceled', 'unavailable')
    GROUP BY c.customer_unique_id
),

-- One row, joined by a constant: an equi-join can be maintained where a scalar subquery would be run anew.
observed AS (
    SELECT 1 AS one, CAST(max(order_purchase_timestamp) AS date) AS until
    FROM orders
),

aged AS (
    SELECT
        p.customer_unique_id,
        p.orders,
        p.revenue,
        CAST(o.until AS integer) - CAST(p.last_order AS integer) AS recency_days
    FROM purchases AS p
    JOIN observed AS o ON o.one = p.one
),

scored AS (
    SELECT
        customer_unique_id,
        CASE
            WHEN recency_days <= $rfm_recency_5_days THEN 5
            WHEN recency_days <= $rfm_recency_4_days THEN 4
            WHEN recency_days <= $rfm_recency_3_days THEN 3
            WHEN recency_days <= $rfm_recency_2_days THEN 2
            ELSE 1
        END AS recency_score,
        CASE
            WHEN orders >= $rfm_frequency_5_orders THEN 5
            WHEN orders >= $rfm_frequency_4_orders THEN 4
            WHEN orders >= $rfm_frequency_3_orders THEN 3
            WHEN orders >= $rfm_frequency_2_orders THEN 2
            ELSE 1
        END AS frequency_score,
        CASE
            WHEN revenue >= $rfm_monetary_5_revenue THEN 5
            WHEN revenue >= $rfm_monetary_4_revenue THEN 4
            WHEN revenue >= $rfm_monetary_3_revenue THEN 3
            WHEN revenue >= $rfm_monetary_2_revenue THEN 2
            ELSE 1
        END AS monetary_score
    FROM aged
)

SELECT
    customer_unique_id,
    recency_score,
    frequency_score,
    monetary_score,
    CASE
        WHEN recency_score >= 4 AND frequency_score >= 4 AND monetary_score >= 4 THEN 'champions'
        WHEN recency_score >= 3 AND frequency_score >= 3 THEN 'loyal'
        WHEN recency_score = 5 AND frequency_score = 1 THEN 'new'
        WHEN recency_score >= 4 THEN 'promising'
        WHEN recency_score = 3 THEN 'needs_attention'
        WHEN frequency_score >= 4 OR monetary_score = 5 THEN 'cannot_lose'
        WHEN frequency_score >= 2 THEN 'at_risk'
        WHEN recency_score = 2 THEN 'hibernating'
        ELSE 'lost'
    END AS segment
FROM scored
