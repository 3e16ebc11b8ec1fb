// Runs one case of a benchmark in a process of its own, so that its peak memory is its own. The case is the benchmark's file
// with one more option; it prints its result as JSON in the last line.

/**
 * @param file the benchmark's own file name
 * @param option such as `--case=lora`
 * @throws with the process's own messages where it ends with another code than 0
 */
export async function runApart<Result>(file: string, option: string): Promise<Result> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", "deno.json", file, option],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  await child.stdin.close();
  const [text, errors] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const { code } = await child.status;
  if (code !== 0) throw new Error(`${option} of ${file} ended with code ${code}: ${errors}`);
  return JSON.parse(text.trimEnd().split("\n").at(-1)!) as Result;
}
