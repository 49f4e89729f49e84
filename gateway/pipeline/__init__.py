"""The judgement: ask the filters, decide by the policies, explain, act, and hand over to the store."""
