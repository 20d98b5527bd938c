package sip

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"

	"github.com/emiago/sipgo/sip"
)

var errNotSDP = errors.New("the body is not SDP")

// offerIn returns the SDP of a request or response, "" when it has no body. It
// is the body, or a part of it (RFC 5621 §3.1).
func offerIn(m interface {
	Body() []byte
	ContentType() *sip.ContentTypeHeader
	GetHeader(string) sip.Header
}) (string, error) {
	body := m.Body()
	if len(body) == 0 {
		return "", nil
	}
	ct := m.ContentType()
	if ct == nil || len(body) > maxBody || !identity(m.GetHeader("Content-Encoding")) {
		return "", errNotSDP
	}
	typ, params, err := mime.ParseMediaType(ct.Value())
	switch {
	case err != nil:
		typ, _, _ = strings.Cut(ct.Value(), ";")
		if strings.EqualFold(strings.TrimSpace(typ), "application/sdp") {
			return string(body), nil
		}
		return "", errNotSDP
	case typ == "application/sdp":
		return string(body), nil
	case typ != "multipart/mixed" && typ != "multipart/related" && typ != "multipart/alternative":
		return "", errNotSDP
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for range 16 {
		p, err := parts.NextPart()
		if err != nil {
			return "", errNotSDP
		}
		if typ, _, err := mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil || typ != "application/sdp" {
			continue
		}
		b, err := io.ReadAll(p)
		if err != nil || len(b) == 0 {
			return "", errNotSDP
		}
		return string(b), nil
	}
	return "", errNotSDP
}

func identity(h sip.Header) bool {
	return h == nil || strings.EqualFold(strings.TrimSpace(h.Value()), "identity")
}
