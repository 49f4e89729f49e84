"""What filters/dmarc.py asks, and how it compares domains."""
