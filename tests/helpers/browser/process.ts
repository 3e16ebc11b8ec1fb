// `node:process` for tests that run in a page: the variables of the test run and nothing else.

declare const LONGTAIL_VARIABLES: Record<string, string | undefined>;

export const env = LONGTAIL_VARIABLES;
export default { env };
