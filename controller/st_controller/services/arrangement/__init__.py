"""What a file says of organisations, roles, rules, quotas and prices, made true step by step."""
