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
WITH scored AS (
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
    FROM customer_lifetime_value
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
