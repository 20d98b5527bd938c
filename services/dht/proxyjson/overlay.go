package proxyjson

import (
	"fmt"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

const typeCertificate = 8

// FromOverlay returns what a value that an overlay found is in OpenDHT: what travels
// packed, or else a plain value of its type and data. A signature that does not verify
// is an error.
func FromOverlay(v overlay.Value) (*jami.Value, error) {
	if v.Packed != nil { // the overlay has verified it
		return jami.ParseValue(v.Packed)
	}
	p, err := jami.ParseValue(v.Data)
	if err != nil {
		return &jami.Value{ID: v.ID, Type: v.Type, Data: v.Data}, nil
	}
	if p.Signed() {
		if err := p.Verify(); err != nil {
			return nil, fmt.Errorf("value %d: %w", v.ID, err)
		}
	}
	if v.ID != 0 { // no signature covers it
		p.ID = v.ID
	}
	return p, nil
}

// ToOverlay returns the form in which an overlay puts v just as it is: packed, but for a
// plain certificate, which other nodes look for as it is in the data.
func ToOverlay(key overlay.Key, v *jami.Value) (overlay.Value, error) {
	o := overlay.Value{Key: key, ID: v.ID, Type: v.Type}
	if v.Type == typeCertificate && !v.Signed() && !v.Encrypted() {
		o.Data = v.Data
		return o, nil
	}
	var err error
	if o.Data, err = v.Pack(); err != nil {
		return overlay.Value{}, err
	}
	if len(o.Data) > overlay.MaxValue {
		return overlay.Value{}, fmt.Errorf("%w: %d bytes packed, at most %d", jami.ErrTooLarge, len(o.Data), overlay.MaxValue)
	}
	return o, nil
}
