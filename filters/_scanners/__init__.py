"""The ways to scanners of others, for the filter `antivirus`: octets out, `said.Said` in.

They know nothing of mail. What is not an answer that the scanner's manual names is `said.Failed`, never "clean".
"""
