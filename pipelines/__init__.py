"""One thin command per verb: parse, call tfrobust, print."""
