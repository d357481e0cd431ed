/* board: the report page of runs, made anew for every look, on this machine's own address 127.0.0.1.
 *
 *     board *b;
 *     TRY(board_open(folders, n, 0, 10, &b));             // port 0: any free one
 *     printf("http://127.0.0.1:%d/\n", board_port(b));
 *     ... until a signal ...
 *     board_close(b);
 *
 * It answers GET of "/" alone, with the page of the folders given; nothing of the URL names a file. A request
 * whose Host is another name than this machine's is refused: a page of another site, whose name was pointed
 * at 127.0.0.1, could otherwise read the runs. */
#pragma once
#include "base/base.h"

typedef struct board board;
/* Serves the N FOLDERS (borrowed until closed) on PORT by a thread of its own; browsers load the page again
 * after REFRESH seconds. ERR_IO when the port cannot be had. */
status board_open(const char *const *folders, i64 n, i64 port, i64 refresh, board **out) MUST;
int board_port(const board *b);
void board_close(board *b); // NULL allowed
