// Package push wakes clients up by the push service that each of them named. What is
// pushed is a notice without content (dht-and-identity §5.1): which key changed, for
// which client and session.
//
//	platform     key of the subscription            what is sent
//	unifiedpush  URL of the endpoint                the notice by POST; with "P256DH|AUTH" as topic it is encrypted (RFC 8291)
//	webpush      PushSubscription of a browser,     the notice by RFC 8030, encrypted (RFC 8291), with VAPID (RFC 8292)
//	             as JSON (endpoint, keys)
//	webhook      URL                                the notice by POST, signed with the operator's secret
//	android, ios device token                       a notification for the operator's gorush, POST /api/push
//
// A webhook's signature is the header
//
//	X-Parley-Signature: t=UNIX,v1=HEX
//
// where HEX is HMAC-SHA256, keyed with the secret, of UNIX, a full stop and the body.
//
// Endpoints are chosen by strangers. So they have to be https, their addresses are
// checked when a connection is made, after the name is resolved, and redirects are not
// followed ([Options.AllowPrivate] is for services in one's own network). Each endpoint
// and each host gets so many pushes a second and no more.
//
// A push that fails is tried again after a time that doubles, or that the service asks
// for by Retry-After, and given up after ten minutes. 404 and 410 say that the endpoint
// is gone for good: [Options.Gone] is told.
package push
