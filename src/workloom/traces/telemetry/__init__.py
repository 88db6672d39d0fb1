"""What readers of telemetry share: rows by session, prompts as messages, dependencies from time and parents."""
