// Package jami holds what Jami is made of as bytes: ids, keys, certificates, the
// account archive, the device receipt, OpenDHT values with their signatures and
// encryption, and the messages in them. It is pure: no socket, no file, no clock of
// its own beyond the dates in certificates, no log.
//
// # Ids
//
//	key id    SHA-1 of the DER SubjectPublicKeyInfo, 20 bytes
//	long id   SHA-256 of the same bytes, 32 bytes
//	Jami Id   the account key's key id, 40 hex digits
//	device id the device key's long id, 64 hex digits (older peers: its key id)
//
// # A value as packed (dht-and-identity §1.4)
//
//	{"id": u64, "dat": {"body": B[, "sig": bin]} | bin[, "p": uint]}
//	B = {["seq": u16, "owner": bin, ["to": bin 20],] "type": u16, "data": bin[, "utype": str]}
//
// "dat" is the bytes of an encrypted value, which hold another {"body", "sig"}.
// The signature is RSA PKCS#1 v1.5 with SHA-512 over B in just this order.
//
// # What values hold (§3.2, §3.8, §3.9), packed in this order, read in any
//
//	DeviceAnnouncement {dev bin20, pk bin}
//	TrustRequest       {service, conversationId, payload bin, confirm bool}
//	ImMessage          {id u64, msg, date s, status int, datatype, metadatas {str: str}}
//	DeviceSync         {date ns, device_name, devices_known {bin20: str}, devices {bin32: {name, sha1 bin20}},
//	                    peers {bin20: Contact}, trust_requests {bin20: PendingRequest}}
//	SyncMsg            [DeviceSync, {id: ConvInfo}, {id: ConvRequest}, {id: {str: str}}]
//	Contact            {added s, removed s, confirmed bool, banned bool, conversationId}
//	PendingRequest     {device bin or nil, conversationId, received s, payload bin}
//	at a PIN's place   AES-GCM(zlib(JSON of the archive)), bare: no msgpack (§3.6)
//
// # Keys
//
// What signs is a crypto.Signer and what opens a crypto.Decrypter, so that the key may be
// in another process, on a card or in a chip; a [crypto/rsa.PrivateKey] is both. Only
// an [Archive] holds keys themselves.
//
// # Bytes encrypted to an RSA key of n bytes (§2)
//
//	len <= n-11   one RSA PKCS#1 v1.5 block
//	otherwise     RSA(AES key 32) n | IV 12 | AES-256-GCM | tag 16
//
// # Bytes encrypted with a password (§2)
//
//	salt 16 | IV 12 | AES-256-GCM | tag 16
//	key = SHA-256(Argon2i(password, salt, t=16, m=64 MiB, p=1, 32 bytes))
package jami
