package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// pages are the embedded files, read and compressed once.
type pages struct{ files map[string]*file }

type file struct {
	kind, etag  string
	plain, gzip []byte
}

// kinds are the types of what is embedded; the system's table may say otherwise.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".webmanifest": "application/manifest+json", ".json": "application/json",
}

func loadPages(from fs.FS) (*pages, error) {
	p := &pages{files: map[string]*file{}}
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		f := &file{kind: kinds[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: b}
		if f.kind == "" {
			f.kind = mime.TypeByExtension(path.Ext(name))
		}
		var z bytes.Buffer
		zw, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := zw.Write(b); err != nil {
			return err
		}
		if err := zw.Close(); err != nil {
			return err
		}
		f.gzip = z.Bytes()
		p.files[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	for _, need := range []string{"start.html", "room.html", "operator.html"} {
		if p.files[need] == nil {
			return nil, fmt.Errorf("pages: %s is missing", need)
		}
	}
	return p, nil
}

func (p *pages) page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, name) }
}

func (p *pages) asset(w http.ResponseWriter, r *http.Request) {
	p.serve(w, r, "assets/"+r.PathValue("name"))
}

func (p *pages) serve(w http.ResponseWriter, r *http.Request, name string) {
	f := p.files[name]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	p.send(w, r, f, http.StatusOK)
}

// missing is the start page for an address that is none; its script says so.
func (p *pages) missing(w http.ResponseWriter, r *http.Request) {
	p.send(w, r, p.files["start.html"], http.StatusNotFound)
}

func (p *pages) send(w http.ResponseWriter, r *http.Request, f *file, status int) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // kept, and asked about: a new node has a new page
	h.Set("Vary", "Accept-Encoding")
	if status == http.StatusOK && r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.gzip
	}
	w.WriteHeader(status)
	w.Write(body)
}

// policy lets the pages do what they do and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"media-src 'self' blob: mediastream:; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "microphone=(self), speaker-selection=(self), autoplay=(self), camera=(), geolocation=(), payment=(), usb=()")
		next.ServeHTTP(w, r)
	})
}

// answer writes JSON that is not to be kept.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// refuse writes a refusal as JSON.
func refuse(w http.ResponseWriter, status int, r *Refusal) { answer(w, status, r) }

// statusOf is the HTTP status for a refusal's code.
func statusOf(r *Refusal) int {
	switch r.Code {
	case "bad_request":
		return http.StatusBadRequest
	case "pin_required", "pin_wrong":
		return http.StatusUnauthorized
	case "forbidden", "rendezvous_off":
		return http.StatusForbidden
	case "not_found":
		return http.StatusNotFound
	case "gone":
		return http.StatusGone
	case "exists", "stale_epoch":
		return http.StatusConflict
	case "locked":
		return http.StatusLocked
	case "slow_down":
		return http.StatusTooManyRequests
	case "no_codec":
		return http.StatusNotAcceptable
	case "full", "busy", "unavailable", "storage":
		return http.StatusServiceUnavailable
	case "timeout":
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// fail answers with err's status and words.
func fail(w http.ResponseWriter, err error) {
	r := refusal(err)
	if r.Retry {
		w.Header().Set("Retry-After", "2")
	}
	refuse(w, statusOf(r), r)
}
