// Package trust decides whether a chain of certificates speaks for a device of a
// Jami account. It is the one place for that: connect, dht, swarm and identity ask
// it alike.
//
// # The rules
//
// A chain is device, account and, where the account did not sign itself, the
// authorities above it, each signed by the next (dht-and-identity §3.1, §3.4;
// unsorted chains are refused there too). It is good when all of this holds; a
// refusal names the first rule that does not, as a [Reason].
//
//   - Size: at most 8 certificates of at most 16 KiB each (a bound of ours: stock
//     chains have three of about 2 KiB).
//   - Form: X.509 v3 as crypto/x509 parses it (RFC 5280). Negative serial numbers
//     are accepted, because half of stock Jami's certificates have one; zero and
//     more than 20 octets are not (RFC 5280 §4.1.2.2).
//   - Completeness: the device has an issuer, and the last certificate signed
//     itself (§3.4: the top issuer is taken as the only authority).
//   - Order: each certificate's issuer name is the next one's subject name, byte by
//     byte (RFC 5280 §7.1), and the next one's key made its signature.
//   - Keys: device and account have RSA keys of 2,048 to 8,192 bits, as values are
//     encrypted to them (§2); an authority may also have ECDSA on P-256, P-384 or
//     P-521, or Ed25519. No key stands in two places of a chain.
//   - Signatures use SHA-256, SHA-384 or SHA-512 (GnuTLS's "medium" profile, §2).
//   - Dates: each certificate is valid now, with five minutes for clocks that
//     differ (RFC 5280 §4.1.2.5); of one's own chain, at some moment.
//   - Authority: each issuer is a CA (basicConstraints), may sign certificates
//     (keyUsage, where present), and its path length suffices (RFC 5280 §4.2.1.3,
//     §4.2.1.9).
//   - Extensions: none that is critical and unknown (RFC 5280 §4.2).
//   - Identity: a UID in a name is the key id of the key it names (§2), and the
//     account and device are the ones expected, where the caller expects some. The
//     Jami Id is the key id of the device's direct issuer (§3.4), whatever names say.
//   - Revocation: no revocation list that an issuer of the chain signed names the
//     certificate under it (§3.7). A list that is past its nextUpdate still counts:
//     what was revoked stays revoked.
//   - What was signed in the past (Rules.At, a commit's time, say): no certificate had
//     ended by then, to the second; that one began later is no fault, since the time
//     is the writer's clock's (swarm §2.4 looks at the end alone). A revocation counts
//     from its date in the list on (RFC 5280 §5.1.2.6), with five minutes for clocks
//     that differ: what a device signed before stays good. The writer chooses that time, and a
//     revoked device may lie: what arrives after the revocation is to be judged now.
//   - Authority of an organisation: where roots are given, the last certificate is
//     one of them.
//
// What is not decided here: whether a good device may call, write or read. That is
// the room's and the contact list's business.
package trust
