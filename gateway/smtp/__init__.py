"""The way in: the SMTP dialog. It knows `gateway.pipeline.intake`, and nothing of what follows."""
