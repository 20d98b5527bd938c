// Package pionlog has the logs of pion's libraries in that of a process.
package pionlog

import (
	"github.com/pion/logging"
	"go.uber.org/zap"
)

// Factory hands pion's warnings and errors on as debug messages: they tell of what far ends
// do, which must not fill a log.
type Factory struct{ Log *zap.Logger }

// Quiet keeps nothing: for where what matters comes back as an error.
var Quiet = Factory{Log: zap.NewNop()}

// NewLogger implements logging.LoggerFactory.
func (f Factory) NewLogger(string) logging.LeveledLogger { return logger{f.Log.Sugar()} }

type logger struct{ log *zap.SugaredLogger }

func (l logger) Trace(string)                      {}
func (l logger) Tracef(string, ...any)             {}
func (l logger) Debug(string)                      {}
func (l logger) Debugf(string, ...any)             {}
func (l logger) Info(string)                       {}
func (l logger) Infof(string, ...any)              {}
func (l logger) Warn(msg string)                   { l.log.Debug(msg) }
func (l logger) Warnf(format string, args ...any)  { l.log.Debugf(format, args...) }
func (l logger) Error(msg string)                  { l.log.Debug(msg) }
func (l logger) Errorf(format string, args ...any) { l.log.Debugf(format, args...) }
