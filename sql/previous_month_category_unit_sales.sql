-- now() is cut in the project's zone: the month turns at the shop's midnight, not at that of UTC.
SELECT category, month, units, revenue
FROM category_unit_sales
WHERE month = CAST(date_trunc('month', now()) - INTERVAL '1 month' AS date)
