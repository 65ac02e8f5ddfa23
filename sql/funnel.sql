-- First what each session did on a day, then how many did it: a new event touches its session's row and its day's, where
-- count(DISTINCT user_session) would keep every session of the day.
WITH visits AS (
    SELECT
        CAST(event_time AS date) AS day,
        user_session,
        count(*) FILTER (WHERE event_type = 'view') AS views,
        count(*) FILTER (WHERE event_type = 'cart') AS carts,
        count(*) FILTER (WHERE event_type = 'purchase') AS purchases
    FROM events
    WHERE user_session IS NOT NULL
    GROUP BY CAST(event_time AS date), user_session
)

SELECT
    day,
    count(*) AS sessions,
    count(*) FILTER (WHERE views > 0) AS views,
    count(*) FILTER (WHERE carts > 0) AS carts,
    count(*) FILTER (WHERE purchases > 0) AS purchases
FROM visits
GROUP BY day
