"""The two foreign parties: the upstream that is polled, the receivers that are posted to."""
