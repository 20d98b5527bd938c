// Package turn is what the relay and those who send others to it share: short-lived
// credentials, the secret that signs them, and lists of relays.
//
// A credential is of the form that TURN servers know as "REST API"
// (draft-uberti-behave-turn-rest-00 §2.2; coturn's use-auth-secret):
//
//	username  EXPIRY ":" WHO      EXPIRY in seconds since 1970, WHO any text
//	password  base64(HMAC-SHA1(secret, username))
//
// It proves that whoever knows the secret let WHO use the relay until EXPIRY; nothing
// about it is kept anywhere.
package turn
