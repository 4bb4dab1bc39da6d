// A stand-in for TelAPI, with the libraries that TelAPI is made of: Fastify and @fastify/websocket.
//
// tests/it/fastify.rs puts scopegate in front of it, to see a real service's habits and not only those that we would
// think of. Paths, bodies and statuses are those of TelAPI's public documentation and browser SDK; like TelAPI it
// checks the forwarded key itself, and refuses what does not say by X-Forwarded-Proto how the client came.
//
//   TELAPI_KEYS='key key ...' node app.js
//
// prints {"telapi":PORT,"webhooks":PORT} once both listen on loopback, and ends when standard input is closed.

import { randomUUID } from 'node:crypto'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'

const keys = new Set((process.env.TELAPI_KEYS ?? '').split(' ').filter(Boolean))
const tokens = new Map() // call tokens by id
const sessions = new Map() // wsToken by session id

const inSeconds = (seconds) => new Date(Date.now() + seconds * 1000).toISOString()

// The documented error body; the id is the one that scopegate forwarded.
function refuse (request, reply, status, code, message) {
  return reply.code(status).send({ error: { code, message, requestId: request.id } })
}

function service () {
  const app = Fastify({ requestIdHeader: 'x-request-id' })
  app.addHook('onRequest', async (request, reply) => {
    if (!request.headers['x-forwarded-proto']) {
      return refuse(request, reply, 403, 'HTTPS_REQUIRED', 'Nobody says that this came over HTTPS.')
    }
  })
  app.setNotFoundHandler((request, reply) => refuse(request, reply, 404, 'NOT_FOUND', 'There is no such thing.'))
  return app
}

async function requireKey (request, reply) {
  const [, bearer] = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? '') ?? []
  if (!keys.has(bearer ?? request.headers['x-api-key'])) {
    return refuse(request, reply, 401, 'INVALID_API_KEY', 'TelAPI does not know this key.')
  }
}

function rest (app) {
  app.get('/health', async () => ({ status: 'ok' }))

  app.register(async (api) => {
    api.addHook('onRequest', requireKey)
    const wantsEndpoint = { body: { type: 'object', required: ['endpointId'] } }

    api.post('/call-tokens', { schema: wantsEndpoint }, async (request, reply) => {
      const minted = { token: randomUUID(), endpointId: request.body.endpointId, expiresAt: inSeconds(300) }
      tokens.set(minted.token, minted)
      return reply.code(201).send(minted)
    })
    api.get('/call-tokens/:id', async (request, reply) =>
      tokens.get(request.params.id) ?? refuse(request, reply, 404, 'NOT_FOUND', 'There is no such call token.'))
    api.get('/apps', async () => ({ apps: [{ id: 'app_01', name: 'demo', endpoints: ['ep_01'] }] }))
    api.post('/sessions/token', { schema: wantsEndpoint }, async () => {
      const [sessionId, wsToken] = [randomUUID(), randomUUID()]
      sessions.set(sessionId, wsToken)
      return { sessionId, wsToken, wsTokenExpiresIn: 300, expiresIn: 3600 }
    })
    api.get('/runtime/capabilities', async (request) => ({
      endpointId: request.query.endpointId,
      interactionModes: { text: true, voice_conversation: true },
      transports: { preferred: ['websocket'], available: ['rest', 'websocket'] }
    }))
  }, { prefix: '/api/v1' })
}

// The token is checked before the upgrade: a wrong one is answered over HTTP, with 401.
function channel (app) {
  app.register(websocket)
  app.register(async (api) => {
    const requireToken = async (request, reply) => {
      const { sessionId, token } = request.query
      if (!token || sessions.get(sessionId) !== token) {
        return refuse(request, reply, 401, 'INVALID_WS_TOKEN', 'This token opens no session.')
      }
    }
    api.get('/ws/session', { websocket: true, preValidation: requireToken }, (socket, request) => {
      const { sessionId } = request.query
      socket.send(JSON.stringify({
        type: 'status',
        sessionId,
        messageId: randomUUID(),
        timestamp: Date.now(),
        direction: 'to_browser',
        status: { state: 'connected' }
      }))
      socket.on('message', (data, isBinary) => {
        if (String(data) === 'bye') return socket.close(4000, 'opened elsewhere')
        socket.send(data, { binary: isBinary })
      })
    })
  })
}

// Whatever the body is, its bytes are counted as they came.
function webhooks (app) {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.post('/api/v1/webhooks/*', async ({ raw, body, headers }, reply) =>
    reply.code(202).send({ path: raw.url, bytes: body?.length ?? 0, authorization: headers.authorization }))
}

const [telapi, hooks] = [service(), service()]
rest(telapi)
channel(telapi)
webhooks(hooks)
for (const app of [telapi, hooks]) await app.listen({ host: '127.0.0.1', port: 0 })
console.log(JSON.stringify({ telapi: telapi.server.address().port, webhooks: hooks.server.address().port }))

process.stdin.on('end', () => process.exit(0)).resume()
