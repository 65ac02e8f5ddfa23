SELECT CAST(ordered_at AS DATE) AS day, count(*) AS orders, sum(amount) AS revenue
FROM orders
WHERE status <> 'canceled'
GROUP BY CAST(ordered_at AS DATE)
