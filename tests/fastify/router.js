// What Fastify's router makes of a path: tests/it/router.rs asks, one JSON line a question.
//
//   [{ options, routes: [[id, method, pattern], ...] }, ...]      first: routers
//   [method, target]                                              then: a request
//
// Each request is answered with the ids that the routers find, in their order, and `null` where one finds nothing or
// answers by itself. The first line of the answer tells the versions and the options that Fastify has by default, which
// every router starts from.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import Fastify from 'fastify'

const ofFastify = createRequire(createRequire(import.meta.url).resolve('fastify'))
const findMyWay = ofFastify('find-my-way')
const {
  allowUnsafeRegex, caseSensitive, ignoreDuplicateSlashes, ignoreTrailingSlash, maxParamLength, useSemicolonDelimiter
} = Fastify().initialConfig
const defaults = {
  allowUnsafeRegex, caseSensitive, ignoreDuplicateSlashes, ignoreTrailingSlash, maxParamLength, useSemicolonDelimiter
}

function router ({ options: { compile, ...options }, routes }) {
  const nothing = () => {}
  // As Fastify does: a handler of its own answers where these are called.
  const made = findMyWay({ ...defaults, onBadUrl: nothing, onMaxParamLength: nothing, ...options })
  for (const [id, method, pattern] of routes) made.on(method, pattern, nothing, { id })
  return compile ? made.compile() : made
}

const answers = [{
  fastify: ofFastify('./package.json').version,
  findMyWay: ofFastify('find-my-way/package.json').version,
  defaults
}]
let routers
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  if (!routers) {
    routers = asked.map(router)
    continue
  }
  answers.push(routers.map((made) => made.find(...asked)?.store?.id ?? null))
}
process.stdout.write(answers.map((answer) => JSON.stringify(answer) + '\n').join(''))
