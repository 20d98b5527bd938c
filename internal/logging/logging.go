// Package logging makes the logger and the tracer of a process from the
// configuration.
//
// Nothing here knows what a secret is: keys, PINs and tokens must not be given to
// a logger in the first place.
package logging

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/parley-jami/parley/internal/config"
)

// Formats of log lines.
const (
	JSON = "json"
	Text = "text"
	Auto = "auto" // Text on a terminal, else JSON
)

// New returns a logger that writes whole lines to w, one write for each.
func New(c config.Log, w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	var enc zapcore.Encoder
	switch Resolve(c.Format, w) {
	case Text:
		ec := zap.NewDevelopmentEncoderConfig()
		ec.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		ec.EncodeDuration = zapcore.StringDurationEncoder
		ec.CallerKey = zapcore.OmitKey
		if IsTerminal(w) {
			ec.EncodeLevel = zapcore.CapitalColorLevelEncoder
		}
		enc = zapcore.NewConsoleEncoder(ec)
	case JSON:
		ec := zap.NewProductionEncoderConfig()
		ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		ec.EncodeDuration = zapcore.SecondsDurationEncoder
		enc = zapcore.NewJSONEncoder(ec)
	default:
		return nil, fmt.Errorf("log.format: %q", c.Format)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(zapcore.AddSync(w)), level), zap.AddStacktrace(zap.DPanicLevel)), nil
}

// Resolve turns Auto into what fits w. A supervisor tells its children the
// result, since they write to a pipe.
func Resolve(format string, w io.Writer) string {
	switch {
	case format != Auto:
		return format
	case IsTerminal(w):
		return Text
	}
	return JSON
}

// IsTerminal reports whether a person reads w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
