package main

import (
	"github.com/parley-jami/parley/bus/contract"
)

// parameters describes the variable tokens of subjects.
var parameters = map[string]string{
	"account":     "Jami Id of the node's account, 40 hex digits",
	"room":        "name of a room, 1 to 64 of a-z, 0-9 and -",
	"caller":      "who asks: a participant, a bot by its name, or a service of the node",
	"bot":         "name of the bot that speaks",
	"listener":    "name of the bot that listens",
	"call":        "id of a call that the node makes: that of the participant, if it is taken",
	"participant": "id of the participant who is heard",
	"worker":      "name of a media process",
	"format":      "audio format: opus, s16le-16000, s16le-24000 or s16le-48000",
	"key":         "key in the overlay, 40 hex digits",
	"contact":     "Jami Id of who it is about, 40 hex digits",
	"type":        "type of the event, or of the value",
}

// document returns the AsyncAPI 3.0 document. It describes the node: it receives
// commands and what bots say, it sends events and audio.
func document(s *schemas) object {
	channels, operations, messages, replies := object{}, object{}, object{}, object{}
	errorMessage := "error"
	messages[errorMessage] = object{
		"summary":     "refusal of a command",
		"contentType": "application/json",
		"headers": object{"type": "object", "properties": object{
			"Nats-Service-Error-Code": object{"type": "string", "description": "the code of the body"},
			"Nats-Service-Error":      object{"type": "string", "description": "the message of the body"}}},
		"payload": s.of(errorType),
	}
	replies[errorMessage] = ref("messages", errorMessage)
	for _, d := range contract.All() {
		m := object{"summary": d.Doc, "contentType": "application/json"}
		if d.Kind == contract.KindAudio {
			m["contentType"] = "application/octet-stream"
			m["headers"] = audioHeaders(s.src)
			m["payload"] = object{"type": "string", "format": "binary", "description": "Opus packet or s16le samples of 20 ms, as Parley-Format says"}
		} else {
			m["payload"] = s.of(d.Request)
			if d.Kind == contract.KindCommand {
				m["headers"] = object{"type": "object", "properties": object{
					contract.HeaderKey:     object{"type": "string", "description": "idempotency key: repeated with it, the command has one effect and the same reply"},
					contract.HeaderTimeout: object{"type": "string", "description": "how long the caller waits, in ms; 5000 without it"}}}
			}
		}
		messages[d.Name] = m
		ch := object{"address": d.Pattern, "description": d.Doc, "messages": object{"message": ref("messages", d.Name)}}
		params := object{}
		for _, p := range d.Params() {
			params[p] = ref("parameters", p)
		}
		if len(params) > 0 {
			ch["parameters"] = params
		}
		channels[d.Name] = ch

		op := object{
			"action":           "send",
			"channel":          object{"$ref": "#/channels/" + d.Name},
			"summary":          d.Doc,
			"messages":         []object{{"$ref": "#/channels/" + d.Name + "/messages/message"}},
			"tags":             []object{{"name": d.Service}},
			"x-parley-service": d.Service,
		}
		if d.Right != "" {
			op["x-parley-right"] = d.Right
		}
		reply := d.Reply
		if toService(d) {
			op["action"] = "receive"
			if d.Kind == contract.KindAudio {
				reply = sayReplyType
			}
			name := d.Name + ".reply"
			messages[name] = object{"summary": "reply to " + d.Name, "contentType": "application/json", "payload": s.of(reply)}
			replies[name] = ref("messages", name)
			op["reply"] = object{
				"address":  object{"location": "$message.header#/reply-to", "description": "the inbox that the NATS request names"},
				"channel":  object{"$ref": "#/channels/reply"},
				"messages": []object{{"$ref": "#/channels/reply/messages/" + name}, {"$ref": "#/channels/reply/messages/" + errorMessage}},
			}
		}
		operations[d.Name] = op
	}
	channels["reply"] = object{"address": nil, "description": "inbox of a request", "messages": replies}
	params := object{}
	for p, doc := range parameters {
		params[p] = object{"description": doc}
	}
	return object{
		"asyncapi": "3.0.0",
		"info": object{
			"title": "Parley bus", "version": "1.0.0",
			"description": "Every subject of a Parley node. A bot reaches those of its room that have x-parley-right, when it was granted that right (any: every bot of the room).",
			"license":     object{"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		"defaultContentType": "application/json",
		"servers": object{"node": object{"host": "127.0.0.1:4223", "protocol": "nats", "description": "the embedded bus (setting bus.listen)",
			"security": []object{{"type": "userPassword", "description": "a NATS credentials file: user JWT and nkey seed"}}}},
		"channels":   channels,
		"operations": operations,
		"components": object{"messages": messages, "schemas": s.done, "parameters": params},
	}
}

func audioHeaders(src *source) object {
	props := object{}
	for _, h := range src.heads {
		if h.name != contract.HeaderKey && h.name != contract.HeaderTimeout {
			props[h.name] = object{"type": "string", "description": h.doc}
		}
	}
	props[contract.HeaderFormat] = object{"type": "string", "enum": contract.Formats}
	return object{"type": "object", "properties": props}
}
