#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Plays the corpus of one fuzz harness as an ordinary test: this program is called fuzz-NAME.t and
 * reads t/fuzz/corpus/NAME below the current directory. A harness aborts when something is wrong.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
main(int argc, char **argv)
{
	const char *name = argc > 0 ? strstr(argv[0], "fuzz-") : NULL;
	static uint8_t data[1024 * 1024];
	char directory[256], path[1024];
	struct dirent *entry;
	int count = 0;

	if (name == NULL)
		return 2;
	snprintf(directory, sizeof(directory), "t/fuzz/corpus/%.*s", (int)strcspn(name + 5, "."),
	         name + 5);
	DIR *all = opendir(directory);
	while (all != NULL && (entry = readdir(all)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		FILE *file = fopen(path, "rb");
		if (file == NULL)
			return 2;
		size_t size = fread(data, 1, sizeof(data), file);
		fclose(file);
		printf("# %s\n", path);
		fflush(stdout);
		LLVMFuzzerTestOneInput(data, size);
		printf("ok %d - %s\n", ++count, entry->d_name);
	}
	if (all != NULL)
		closedir(all);
	printf("1..%d\n", count);
	return count == 0;
}
