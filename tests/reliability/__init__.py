"""The proof that nothing is lost: `make reliability` runs it, docs/reliability.md says what it found.

`ledger` states the law and judges by it; it needs a `Book` (what was promised: `sender` writes it), the arrivals of a
`sink`, and the `account` that the product's store gives. A fault of whatever kind goes between, and the law holds:

    with sink.running() as taker, gateways.run(..., routes to taker.port ...) as product:
        book = ledger.Book(product.home / "book")
        with sender.sending(book, [product.ports["mx"]], ledger.mixed("relay.example", ["alice@in.example"])):
            ...                                   # break something; note ledger.Incident(...) where a copy may follow
        account.wait_settled(store, within=30)
        ledger.judge(book.entries(), taker.arrivals(), account.kept(store), incidents).check()
"""
