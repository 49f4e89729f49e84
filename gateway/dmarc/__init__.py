"""DMARC as it stands in the DNS (RFC 9989 4.7 to 4.10): records, and whose a domain is; for filter and reports."""
