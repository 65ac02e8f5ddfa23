-- now() is cut in the project's zone: the month turns at the shop's midnight, not at that of UTC.
SELECT state, city, month, orders, revenue
FROM monthly_city_revenue
WHERE month = CAST(date_trunc('month', now()) - INTERVAL '1 month' AS date)
