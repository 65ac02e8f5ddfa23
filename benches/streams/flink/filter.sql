SELECT event_time, product_id, price, user_id, user_session
FROM events
WHERE event_type = 'purchase'
